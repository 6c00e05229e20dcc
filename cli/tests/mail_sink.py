"""A mail server for tests: PORT DIR MODE [CERT KEY]. Each mail becomes a JSON file in DIR.

plain: no TLS, nobody has to say who he is. smtps, starttls: only with TLS, and only the user "bulla" with the password
"open sesame".
"""

import asyncio
import email
import email.policy
import json
import pathlib
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

port, directory, mode, *pair = sys.argv[1:]


class Sink:
    taken = 0

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        attached = [json.loads(part.get_content()) for part in mail.iter_attachments()]
        Sink.taken += 1
        said = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "headers": mail.items(),
            "subject": mail["subject"],
            "text": mail.get_body().get_content(),
            "attached": attached,
        }
        new = pathlib.Path(directory) / f".{Sink.taken}"
        new.write_text(json.dumps(said))
        new.rename(new.with_name(f"{Sink.taken:04}.json"))
        return "250 taken"


def known(server, session, envelope, mechanism, data):
    right = (data.login, data.password) == (b"bulla", b"open sesame")
    return AuthResult(success=right, handled=False)


def protocol():
    if mode == "plain":
        return SMTP(Sink())
    asks = {"authenticator": known, "auth_required": True}
    if mode == "smtps":
        return SMTP(Sink(), auth_require_tls=False, **asks)
    return SMTP(Sink(), tls_context=context, require_starttls=True, **asks)


context = None
if pair:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)


async def serve():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        protocol, "127.0.0.1", int(port), ssl=context if mode == "smtps" else None
    )
    await server.serve_forever()


asyncio.run(serve())
