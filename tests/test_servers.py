"""What tests rely on in their servers."""

import asyncio

import asyncssh
import pytest

pytestmark = pytest.mark.slow


def test_s3_keeps_what_it_stored_when_it_is_killed(s3):
    assert s3.bucket("kept") == "s3://kept"
    s3.write("kept", "folder/name", b"content")
    s3.kill()
    assert not s3.answers()
    s3.start()
    assert s3.keys("kept") == {"folder/name": 7}
    assert s3.read("kept", "folder/name") == b"content"


def test_ssh_lets_in_by_its_key(ssh):
    async def listing(keys):
        options = {"port": ssh.port, "known_hosts": None, "client_keys": keys}
        async with (
            asyncssh.connect("127.0.0.1", **options) as connection,
            connection.start_sftp_client() as sftp,
        ):
            return await sftp.listdir(str(ssh.folder))

    assert "host_key" in asyncio.run(listing([str(ssh.key)]))
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    with pytest.raises(asyncssh.PermissionDenied, match="Permission denied"):
        asyncio.run(listing([stranger]))
