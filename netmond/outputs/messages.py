"""The journal messages that have an identity: one fixed MESSAGE_ID for each kind, never reused.

`packaging/journal/netmond.catalog` explains each to a person (``journalctl -x``).
"""

from __future__ import annotations

from enum import StrEnum


class MessageId(StrEnum):
    """MESSAGE_ID values; beside each the fields that come with it (`journal`, `audit`)."""

    STARTED = "c917c5705c914a41bc095bddc37bc826"  #: VERSION, INTERFACES, TARGETS
    STOPPED = "ac1f320dd7d0455aaa8eeabc8425d5e0"  #: SINCE and the four counters
    FEATURE = "52dfce02103a4e8299b2d7118ec56565"  #: FEATURE, STATE, PREVIOUS_STATE, REASON
    LOSS = "75e82a582f5b47968c65c5df9192f0f0"  #: LOSS, COUNT, TOTAL, MEANING
    TARGET_ADDED = "40c95008ed6f487f9594c908b067fb00"  #: TARGET
    TARGET_REMOVED = "e2fe1fa8227c4dd18515b9c493131eee"  #: TARGET
    RELOADED = "18c288ff6f1541df8d75ab8dfff4b7ef"  #: WARNINGS
    CHANGED = "56f6ac66827146749938e0f938eea6dd"  #: CALLER_UID, METHOD, OBJECT, ARGUMENTS
    DENIED = "1f7a0f0a4fb54a2a8a274a419b330a28"  #: CALLER_UID, METHOD, OBJECT, REASON
    USER_SUMMARY = "5a6a61a4427942eda71a270a9d42e7d0"  #: USER, USER_UID, PERIOD and the four counters
    TARGET_SUMMARY = "62708b5276e5488685223669b7e0b09f"  #: TARGET, PERIOD and the four counters
    RDMA_PORT_FOUND = "6fa2a598c6254d6e91c325fe5ab701d9"  #: RDMA_DEVICE, RDMA_PORT, INTERFACE, STATE
    RDMA_PORT_STATE = "418e29bcebda414cbd656baf10b7f84b"  #: the same and PREVIOUS_STATE
    RDMA_PORT_GONE = "2a253279b9124cb6a473f9a0470d7e85"  #: the same as when it was found
