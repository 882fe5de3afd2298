# The image of a Conclave node: one static program and nothing else. No shell, no package, no file of another project.
# Build it with scripts/image.sh, which makes the folder rootfs with the host's Go: a builder stage would need an image with Go in
# it, and so the network.
FROM scratch

ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="Conclave" \
      org.opencontainers.image.description="A node of a distributed, replicated key vault cluster" \
      org.opencontainers.image.source="https://github.com/conclave-vault/conclave" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"

# /conclave, and the empty /var/lib/conclave, which anybody may write (mode 1777): a new volume takes it over, and the node, whatever
# user it runs as, makes its own folder of mode 0700 in it.
COPY rootfs/ /

# Nobody's number on the host. docker-compose.yml runs it as the user who owns the PIN files.
USER 65532:65532

# Clients; other nodes; gossip.
EXPOSE 7443 7444 7445 7445/udp

ENTRYPOINT ["/conclave"]
CMD ["server", "--config", "/etc/conclave/node.yaml"]
