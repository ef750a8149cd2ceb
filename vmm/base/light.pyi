# SPDX-License-Identifier: GPL-2.0-or-later
# For a type checker each name of light.py is the original's: so every module imports them plainly.
from bisect import bisect_left as bisect_left
from bisect import bisect_right as bisect_right
from collections import Counter as Counter
from collections import deque as deque
from enum import StrEnum as StrEnum
from functools import cache as cache
from functools import cached_property as cached_property
from functools import lru_cache as lru_cache
from functools import partial as partial
from threading import Lock as Lock
from threading import RLock as RLock
from threading import local as local
from typing import Generic as Generic
from typing import NamedTuple as NamedTuple
from typing import Protocol as Protocol
from typing import TypeVar as TypeVar
from typing import assert_never as assert_never
