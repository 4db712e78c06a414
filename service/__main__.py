"""``python -m service``: see ``service.cli.main``."""

from service.cli.main import main

if __name__ == "__main__":
    main(prog_name="python -m service")
