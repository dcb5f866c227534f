FROM scratch
ARG NAME=world
RUN <<EOF
echo hello $NAME
echo done
EOF
RUN <<-EOF
	#!/usr/bin/env python3
	print("hi")
	EOF
RUN python3 <<ONE - <<"TWO" && echo end
first
ONE
second $NAME
TWO
COPY <<expanded <<'literal' /etc/conf/
name = ${NAME}
expanded
name = ${NAME}
literal
