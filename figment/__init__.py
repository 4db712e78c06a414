"""The command ``figment``: all commands of the service and of training under one name."""
