"""The survey: the mail that asks, and the pages that take the answer. Public, signed links, no session, no cookie."""
