"""Servers of the development packages, each on free ports of this machine, ended by the process that began them."""

from __future__ import annotations

import os
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.ports import free_port

KEY, SECRET = "AKIDBACKSTAY", "not-a-real-secret"
BUCKET = "backstay-tests"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
_GRPC = 10_000  # where SeaweedFS listens too, counted from each of its ports
_STARTS_WITHIN_S = 60.0


def script(name: str) -> str:
    """A program that a package of the environment has brought."""
    return str(Path(sysconfig.get_path("scripts")) / name)


@contextmanager
def running(
    argv: Sequence[str], log: Path, ready: Callable[[], bool], environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A server while it is needed: from when `ready` says so to the end of its whole process group."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={"PATH": os.environ["PATH"], "HOME": str(log.parent), **(environ or {})},
            start_new_session=True,
        )
    try:
        _wait(process, log, ready)
        yield process
    finally:
        _end(process)


def _wait(process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its own group: `start_new_session`
        process.wait()


def control(endpoint: str) -> boto3.client:
    """boto3 for what a driver has no business with: making buckets, looking at headers."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10),
    )


def _takes_objects(endpoint: str) -> Callable[[], bool]:
    """Whether the server makes the bucket and keeps an object in it: an open port says nothing yet."""
    client = control(endpoint)

    def ready() -> bool:
        try:
            if not any(bucket["Name"] == BUCKET for bucket in client.list_buckets()["Buckets"]):
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
            client.delete_object(Bucket=BUCKET, Key="ready")
        except (BotoCoreError, ClientError):
            return False
        return True

    return ready


def seaweedfs_argv(place: Path, ports: Sequence[int]) -> list[str]:
    """SeaweedFS with nothing but its S3 door open."""
    s3, master, volume, filer, admin = ports
    return [
        script("weed"), "mini", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={place}", "-admin.ui=false",
        f"-admin.port={admin}", "-webdav=false", "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
        f"-s3.port={s3}", f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}",
    ]  # fmt: skip


@contextmanager
def seaweedfs(place: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A real S3 server: its endpoint, and its process. It keeps what an earlier one left in the same place."""
    (data := place / "data").mkdir(parents=True, exist_ok=True)
    ports = [free_port(companion=_GRPC) for _ in range(5)]
    endpoint = f"http://127.0.0.1:{ports[0]}"
    environ = {**CREDENTIALS, "GOMEMLIMIT": "300MiB"}
    with running(seaweedfs_argv(data, ports), place / "log", _takes_objects(endpoint), environ) as process:
        yield endpoint, process


@contextmanager
def rclone_s3(place: Path) -> Iterator[str]:
    """A server that speaks S3 and keeps few of its promises: it overwrites, and answers ranges with whole objects."""
    (place / "data").mkdir(parents=True)
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    argv = [script("rclone"), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}"]
    argv += ["--config", str(place / "no.conf"), "--vfs-cache-mode", "off", str(place / "data")]
    with running(argv, place / "log", _takes_objects(endpoint)):
        yield endpoint
