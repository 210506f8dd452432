"""Seeds that differ a little, from which the experiments' tests let them conclude."""

from minilpo.experiments.base import over_seeds

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (1980).to_bytes(4, "big") + (300).to_bytes(4, "big")


def five(make, noises=(0.0, 0.001, 0.002, 0.003, 0.004), **given):
    """The numbers of five seeds, or of one per noise, over all seeds."""
    return over_seeds([make(noise, **given) for noise in noises])


def around(value, noise):
    """A number that is as often well above a value as below, so that nothing can be told."""
    return value + 0.05 * (-1) ** round(1000 * noise)


def named(finding):
    """The rows of a finding by their labels."""
    return {row.label: row for row in finding.rows}


def titles(module, found):
    """The titles of an experiment's figure."""
    return [ax.get_title().replace("\n", " ") for ax in module.draw(found).axes]
