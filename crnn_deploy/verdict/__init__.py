"""Does a candidate read what its reference reads? One verdict for all precisions, engines and libraries."""
