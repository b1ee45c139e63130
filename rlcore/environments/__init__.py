"""Environments: what answers a completion between its turns, so that a policy can call tools."""

from rlcore.environments.protocol import Environment as Environment
from rlcore.environments.protocol import Episode as Episode
from rlcore.environments.protocol import Reply as Reply
from rlcore.environments.tools import BadCallError as BadCallError
from rlcore.environments.tools import Tools as Tools
