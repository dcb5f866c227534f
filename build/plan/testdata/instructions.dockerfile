# escape=`
FROM scratch
MAINTAINER somebody@example.com
LABEL one=1 "two words"="2 ${PATH}"
ENV legacy form with spaces
ENV A=a B="b $legacy" C='$A'
EXPOSE 80 443/tcp 5000-5002/udp
VOLUME /data /log
VOLUME ["/json"]
WORKDIR rel
WORKDIR sub/../sub2
USER app:staff
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=5s --timeout=3s --retries=4 CMD curl -f http://localhost/ || exit 1
ONBUILD COPY . /app
ADD --checksum=sha256:0000000000000000000000000000000000000000000000000000000000000000 https://example.com/f.tgz /f.tgz
ADD --chown=1:2 a `
    b /dir/
COPY --link --exclude=*.md --parents ["x y", "z", "/d/"]
RUN ["exec", "form"]
RUN --network=none shell form | with pipe
SHELL ["/bin/bash", "-eo", "pipefail", "-c"]
RUN in bash
CMD run $it
ENTRYPOINT entry point
CMD ["json"]
