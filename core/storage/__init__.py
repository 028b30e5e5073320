"""Where the rows live. SQLAlchemy stays in this package; everything else works with dataclasses and plain values."""
