"""Which model families there are."""

from cwic.training.cvpr2018.family import Cvpr2018Family
from cwic.training.family import Family
from cwic.training.flagship.family import FlagshipFamily

FAMILIES: dict[str, Family] = {"cvpr2018": Cvpr2018Family(), "flagship": FlagshipFamily()}
