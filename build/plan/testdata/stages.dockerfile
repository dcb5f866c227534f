# syntax=docker/dockerfile:1
ARG VERSION=1.2
ARG GIVEN=default
ARG IMAGE=registry.example:5000/base:${VERSION}

FROM --platform=$BUILDPLATFORM golang:${VERSION} AS Build
ARG TARGETARCH
ARG TARGETVARIANT
ARG VERSION
ARG GIVEN
ARG UNSET
WORKDIR /src
COPY go.mod go.sum ./
COPY . .
RUN --mount=type=cache,target=/root/.cache \
    --mount=type=bind,from=busybox,source=/bin,target=/tools \
    --mount=type=secret,id=key,env=KEY \
    --mount=type=tmpfs,target=tmp,size=1m \
    GOARCH=$TARGETARCH go build -o /out/app

FROM unused AS skipped
RUN never

FROM ${IMAGE} AS runtime
ENV PATH=/app:$PATH MODE=${GIVEN:-none}
ARG MODE=hidden
RUN echo $MODE

FROM runtime
COPY --from=build --chown=app:app --chmod=0755 /out/app /app/
COPY --from=0 /out/other /app/other
COPY --from=alpine:3 /etc/os-release /
ENTRYPOINT ["/app/app"]
