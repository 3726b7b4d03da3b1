"""Lictor as the benches of its peers have it, for several instances of one application."""

import engines


class Lictor(engines.Lictor):
    """Each instance has the same configuration, and a name and a port of its own."""

    def prepare(self, place):
        super().prepare(place)
        # Nobody looks, and looks cost.
        with (place.folder / "lictor.yaml").open("a") as config:
            config.write("console: {listen: off}\n")
