"""Secure keys that cards of the host make, for drivers that ask zcrypt for one.

* `SecureKeys` (`secure_keys.py`): sends the requests that a driver sends for a new key.

A key is asked from one queue. Which one: any that a CCA card has, by speed and by the requests so
far; or the first of a list, for which every queue of a kind is asked what it is, unless that is
remembered (`CardInfo`). All requests are counted (`request_count`).

Uses the cards and their queues; nothing of the bus uses it.

Follows drivers/s390/crypto/zcrypt_ccamisc.c, zcrypt_ep11misc.c and zcrypt_api.c (v6.1, v6.12).
"""
