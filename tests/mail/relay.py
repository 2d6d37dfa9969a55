"""A mail relay for tests, by aiosmtpd (Debian: python3-aiosmtpd).

    relay.py implicit|starttls|plain CERTIFICATE KEY

Says its port, then each message that it took, a line of JSON each. Ends with its standard input.
"""

import asyncio
import json
import logging
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult


class Taken:
    async def handle_DATA(self, server, session, envelope):
        secured = server.transport.get_extra_info("ssl_object")
        say({
            "tls": secured and secured.version(),
            "login": session.auth_data,
            "to": envelope.rcpt_tos,
            "message": envelope.content.decode(),
        })
        return "250 taken"


def say(what):
    print(json.dumps(what), flush=True)


def login(server, session, envelope, mechanism, data):
    known = (data.login, data.password) == (b"me", b"hunter2")
    return AuthResult(success=known, handled=False, auth_data=data.login.decode())


async def main():
    # That clients hang up on its certificate is what it is there for.
    logging.disable()
    kind, certificate, key = sys.argv[1:]
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    starttls = {"tls_context": context, "require_starttls": True} if kind == "starttls" else {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        # Of TLS from the first byte it does not know: there it would never offer to log in.
        lambda: SMTP(Taken(), authenticator=login, auth_require_tls=kind != "implicit", loop=loop, **starttls),
        "127.0.0.1",
        0,
        ssl=context if kind == "implicit" else None,
    )
    say(server.sockets[0].getsockname()[1])
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


asyncio.run(main())
