"""How the demo's four tiny captioners were made; the weights that came of it are in `caploom/demo/captioners`.

Nothing that is installed needs it, so it lies beside the package.
"""
