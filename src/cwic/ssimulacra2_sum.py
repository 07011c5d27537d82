"""Numbers of the weighted sum of errors that SSIMULACRA2 (Sneyers 2022, weights of 2023) goes by.

Of XYB at six scales, each half the one before in linear light, three kinds of errors are taken: of
structure, of edges that came and of edges that went, each by its mean and by the fourth root of its
mean fourth power. The score is a falling function of their weighted sum. Of its 108 weights the 25
are here that are above 0.1; the others are at most 0.0021. None of the sixth scale is above.
"""

# Kinds of errors and ways to take them, in the order of the weights.
STRUCTURE, CAME, WENT = range(3)
MEAN, FOURTH_POWER = range(2)

# Of each scale that counts, from fine to coarse: by channel of XYB, way and kind.
WEIGHTS: tuple[dict[tuple[int, int, int], float], ...] = (
    {
        (1, FOURTH_POWER, STRUCTURE): 7.466890328078848,
        (1, FOURTH_POWER, WENT): 17.445833984131262,
    },
    {
        (0, FOURTH_POWER, STRUCTURE): 1.1041726426657346,
        (1, FOURTH_POWER, STRUCTURE): 6.683678146179332,
        (1, FOURTH_POWER, WENT): 1.027889937768264,
    },
    {
        (0, FOURTH_POWER, STRUCTURE): 1.8422455520539298,
        (0, FOURTH_POWER, CAME): 11.441172603757666,
        (1, MEAN, STRUCTURE): 225.20515300849274,
        (1, FOURTH_POWER, STRUCTURE): 19.213238186143016,
    },
    {
        (0, FOURTH_POWER, STRUCTURE): 1.8787594979546387,
        (0, FOURTH_POWER, CAME): 10.94906990605142,
        (1, MEAN, STRUCTURE): 176.39317598450694,
        (1, FOURTH_POWER, STRUCTURE): 24.43300999870476,
        (1, FOURTH_POWER, CAME): 0.28520802612117757,
        (2, FOURTH_POWER, STRUCTURE): 8.826982764996862,
        (2, FOURTH_POWER, CAME): 23.19243343998926,
    },
    {
        (0, MEAN, CAME): 0.9677937080626833,
        (0, FOURTH_POWER, CAME): 0.9981766977854967,
        (1, FOURTH_POWER, STRUCTURE): 34.77906344483772,
        (1, FOURTH_POWER, CAME): 44.835625328877896,
        (2, MEAN, STRUCTURE): 95.1080498811086,
        (2, MEAN, CAME): 0.9863978034400682,
        (2, MEAN, WENT): 0.9834382792465353,
        (2, FOURTH_POWER, CAME): 171.2667255897307,
        (2, FOURTH_POWER, WENT): 0.9807858872435379,
    },
)
# Channels of XYB that count, of each of these scales.
CHANNELS = tuple(sorted({channel for channel, _, _ in weights}) for weights in WEIGHTS)
SHARE = 0.9562382616834844  # of the sum that the score goes by
C2 = 0.0009  # of the structure

# R, G, B of linear light -> what three kinds of cones see, rows sum to 1 (libjxl, opsin_params.h).
ABSORBANCE = (
    (0.3, 0.622, 0.078),
    (0.23, 0.692, 0.078),
    (0.24342268924547819, 0.20476744424496821, 0.5518098665095536),
)
BIAS = 0.0037930732552754493  # is added to what they see
# Cube roots of that -> X, Y and B - Y, moved and stretched to be of one size and above 0.
XYB = ((7.0, -7.0, 0.0), (0.5, 0.5, 0.0), (-0.5, -0.5, 1.0))
_BIAS_ROOT: float = BIAS ** (1 / 3)
XYB_BIAS = (0.42, 0.01 - _BIAS_ROOT, 0.55)
# Is added to a mean fourth power: the slope of its root has no bound at 0.
LEAST_POWER = 1e-16
LEAST_ROOT: float = LEAST_POWER**0.25
