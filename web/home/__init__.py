"""The start page: what is running, the mails on this machine, the answers. For the reader at this machine alone."""
