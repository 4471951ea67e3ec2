# The bastion as an image: docker build -t bastion .
#
#   docker run --rm -it -v bastion-etc:/etc/bastion bastion keys init
#   docker run --rm -it -v bastion-etc:/etc/bastion -v bastion-lib:/var/lib/bastion bastion users add alice
#   docker run -d --name bastion --hostname bastion --restart unless-stopped -p 2222:2222 \
#     -v bastion-etc:/etc/bastion -v bastion-lib:/var/lib/bastion -v bastion-log:/var/log/bastion \
#     -v /var/run/docker.sock:/var/run/docker.sock --group-add "$(stat -c %g /var/run/docker.sock)" bastion
#
# The configuration is /etc/bastion/config.yaml; another may be mounted over it, readable by uid 2222.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS python
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/*

FROM python AS packages
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv
RUN python3 -m venv /opt/bastion
WORKDIR /source
COPY pyproject.toml ./
# the dependencies in a layer of their own: they change less often than the source
RUN /opt/bastion/bin/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        > requirements.txt \
    && /opt/bastion/bin/pip install --no-cache-dir --requirement requirements.txt

FROM packages AS build
COPY README.md ./
COPY bastion bastion
RUN /opt/bastion/bin/pip install --no-cache-dir --no-deps . && /opt/bastion/bin/pip uninstall --yes pip

FROM python
RUN useradd --uid 2222 --home-dir /var/lib/bastion --shell /usr/sbin/nologin bastion \
    && install -d -m 700 -o bastion -g bastion /etc/bastion /var/lib/bastion /var/log/bastion
COPY --from=build /opt/bastion /opt/bastion
COPY --chown=bastion:bastion systemd/config.yaml /etc/bastion/config.yaml
ENV PATH=/opt/bastion/bin:$PATH PYTHONUNBUFFERED=1
USER bastion
WORKDIR /var/lib/bastion
VOLUME ["/etc/bastion", "/var/lib/bastion", "/var/log/bastion"]
EXPOSE 2222
HEALTHCHECK --start-period=20s --interval=60s --timeout=5s \
    CMD ["python", "-c", "import socket; assert socket.create_connection(('127.0.0.1', 2222), 4).recv(4) == b'SSH-'"]
ENTRYPOINT ["bastion"]
CMD ["serve"]
