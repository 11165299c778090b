from captioning.web.demo.examples import Credit as Credit
from captioning.web.demo.examples import DemoExample as DemoExample
from captioning.web.demo.examples import built_in_examples as built_in_examples
from captioning.web.demo.examples import photograph_examples as photograph_examples
from captioning.web.demo.server import Demo as Demo
from captioning.web.demo.server import Limits as Limits
from captioning.web.demo.server import serve as serve
from captioning.web.demo.static_site import write_static_demo as write_static_demo
from captioning.web.demo.work import checkpoint_names as checkpoint_names
from captioning.web.demo.work import with_encoder as with_encoder

__all__: list[str]
