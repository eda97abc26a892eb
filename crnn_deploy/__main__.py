"""`python -m crnn_deploy` is the command `crnn-deploy`."""

from crnn_deploy.cli.main import main

__all__: list[str] = []

main(prog_name="crnn-deploy")
