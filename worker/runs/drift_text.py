"""The text that drift is measured on: prose about things that no tenant's task is, written for this. Data.

What a job is told of its drift is of these very words: a changed text makes figures that do not compare with those of
before. tests/worker/runs/test_drift.py holds its SHA-256.
"""

from typing import Final

TEXTS: Final = (
    "The harbour wall was built of grey stone, and at low tide the fishermen walk along its foot to look for mussels."
    " In winter the waves come over the top and leave a crust of salt on the windows of the houses behind it.",
    "To make bread, mix flour, water, salt and a little yeast, and leave the dough under a cloth until it has doubled."
    " Fold it twice, shape it, and bake it in a hot oven for forty minutes, until the crust is brown.",
    "A river that bends wears away its outer bank, where the water is fast, and drops sand on the inner one. After some"
    " hundred years the bend is so narrow that a flood cuts through it, and a lake is left in the meadow.",
    "The night train stops here for six minutes. The guard gets down with a lamp, walks to the last carriage and back,"
    " and writes the number of passengers in a small book before he raises his hand to the driver.",
    "Bees find their way home by the sun, and on cloudy days by the light of the sky that is left. When one of them has"
    " found a field of clover, she tells the others by a dance how far it is and in which direction.",
    "In 1868 the town council bought two hundred lamps and paid a man to light them every evening. He carried a ladder"
    " on his shoulder, and it took him three hours to reach the last street by the mill.",
    "A lever is in balance when the weight on one side times its distance from the pivot equals the weight on the other"
    " side times its own. So a child at the end of a long plank can lift a grown man who sits near the middle.",
    "Potatoes are planted when the soil is warm, a hand deep and two hands apart. When the leaves are as high as a cup,"
    " pull earth around the stems; when they turn yellow, wait for a dry day and dig.",
)
