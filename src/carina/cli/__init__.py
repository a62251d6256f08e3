"""The command line: one dataclass per command with ``run()``; heavy imports happen inside ``run``."""

def main() -> None:
    raise SystemExit("nothing here yet")
