"""A running tcpdump in a namespace."""

from __future__ import annotations

from pathlib import Path

from b4client.lab.netns import LabError, Namespace, wait_until


class Capture:
    """A running tcpdump. Usable in a ``with`` statement; ``stop`` returns when the file is complete."""

    def __init__(self, namespace: Namespace, interface: str, file: Path, expression: str = "") -> None:
        self.file = file
        messages = file.with_name(file.name + ".log")
        messages.write_bytes(b"")
        self._process = namespace.start(
            *("tcpdump", "-n", "-U", "--immediate-mode", "-s", "0", "-Z", "root", "-i", interface, "-w", str(file)),
            *([expression] if expression else []),
            log=messages,
        )

        def listening() -> bool:
            text = messages.read_text(errors="replace")
            if self._process.poll() is not None:
                raise LabError(f"tcpdump ended at once: {text.strip()}")
            return "listening on" in text

        wait_until(listening, 15, "tcpdump to listen")

    def stop(self) -> Path:
        """End the capture; the file is complete afterwards."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait(10)
        self.file.with_name(self.file.name + ".log").unlink(missing_ok=True)
        return self.file

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
