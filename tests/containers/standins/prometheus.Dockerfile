# Stands in for prom/prometheus: Debian's server, with the official image's user and volume.
ARG BASE
FROM ${BASE}
RUN apt-get update \
  && apt-get install --yes --no-install-recommends wget \
  && rm -rf /var/lib/apt/lists/* \
  && install -d -o nobody -g nogroup /prometheus /etc/prometheus
COPY files/prometheus /usr/local/bin/prometheus
WORKDIR /prometheus
VOLUME /prometheus
EXPOSE 9090
USER nobody
ENTRYPOINT ["prometheus"]
