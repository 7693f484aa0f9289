"""The codecs of other APIs, for both sides: front doors read requests, backends write them."""
