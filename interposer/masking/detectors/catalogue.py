"""Every detector there is, in the order in which they are asked. A new family is a new file and one line here."""

from __future__ import annotations

from . import assigned, email, iban, ip, jwt, keys, mac, numbers, phone, providers
from .detector import Detector

DETECTORS: tuple[Detector, ...] = (
    *keys.DETECTORS,
    *jwt.DETECTORS,
    *providers.DETECTORS,
    *assigned.DETECTORS,
    *email.DETECTORS,
    *iban.DETECTORS,
    *mac.DETECTORS,
    *ip.DETECTORS,
    *phone.DETECTORS,
    *numbers.DETECTORS,
)
