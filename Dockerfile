# syntax=docker/dockerfile:1

# The program alone, on an image without a shell, as a user without rights.
#
#   docker build -t portreeve .
#   docker run --rm -p 8080:8080 -v ./portreeve.toml:/etc/portreeve/portreeve.toml:ro portreeve

FROM rust:1.95-bookworm AS builder
WORKDIR /build

# The dependencies first, with nothing of ours but what names them and the record of how they are used: this layer stays until
# one of these files changes.
# Whatever target the manifest declares by name only has to be there for cargo to read the manifest.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
RUN mkdir -p src benches \
    && echo '//! To be replaced.' > src/lib.rs \
    && printf '//! To be replaced.\nfn main() {}\n' > src/main.rs \
    && sed -n '/^\[\[bench\]\]/,/^name/s/^name *= *"\(.*\)".*/\1/p' Cargo.toml \
        | while read -r bench; do echo 'fn main() {}' > "benches/$bench.rs"; done \
    && cargo build --release --locked --bin portreeve

# Then ours, with the files the program may embed. Cargo goes by the time of a file, and a checkout may be older than the
# layer above.
COPY src src
COPY config config
RUN touch src/lib.rs src/main.rs && cargo build --release --locked --bin portreeve

# glibc and libgcc of the same Debian as the builder's, certificates, and user 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=builder /build/target/release/portreeve /usr/local/bin/portreeve
COPY config/container.toml /etc/portreeve/portreeve.toml
EXPOSE 8080
STOPSIGNAL SIGTERM
# Asks /readyz of the admin listener that the configuration opens on 127.0.0.1:9180; there is no shell and no curl here.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["/usr/local/bin/portreeve", "healthcheck", "--admin", "127.0.0.1:9180"]
ENTRYPOINT ["/usr/local/bin/portreeve"]
CMD ["run", "-c", "/etc/portreeve/portreeve.toml"]
