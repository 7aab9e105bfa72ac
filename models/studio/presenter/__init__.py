"""A presenter made of signed distances: pose and expression in, pictures and true labels out.

`identity` who it is, `rig` weights → pose, `head` the shape, `shade` its light and colour, `background` the room,
`fibres` and `groom` its hair, `render` the camera, `landmarks` the true points.
"""

from models.studio.presenter.identity import PRESENTERS, Identity
from models.studio.presenter.render import Crop, Picture, Presenter
from models.studio.presenter.rig import Pose, pose, weights

__all__ = ["PRESENTERS", "Crop", "Identity", "Picture", "Pose", "Presenter", "pose", "weights"]
