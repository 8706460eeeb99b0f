"""Drawings of a network as text, for renderers that the user already has."""

from collections.abc import Sequence


LayerLabels = Sequence[tuple[str, str]]
"""`(name, description)` of each layer."""

ConnectionLabels = Sequence[tuple[str, str, tuple[str, ...]]]
"""`(label, kind of synapse, names of its layers)` of each connection."""


def to_mermaid(layers: LayerLabels, connections: ConnectionLabels) -> str:
    """A Mermaid flowchart: circles are layers, boxes are synapses."""
    ids = {name: f"layer{i}" for i, (name, _) in enumerate(layers)}
    lines = ["graph LR"]
    lines += [f'    {ids[name]}(("{_html(name)}<br/>{_html(text)}"))' for name, text in layers]
    for i, (label, kind, members) in enumerate(connections):
        lines.append(f'    synapse{i}["{_html(label)}<br/>{_html(kind)}"]')
        lines += [f"    {ids[name]} --- synapse{i}" for name in members]
    return "\n".join(lines) + "\n"


def to_dot(layers: LayerLabels, connections: ConnectionLabels) -> str:
    """An undirected Graphviz graph: circles are layers, boxes are synapses."""
    ids = {name: f"layer{i}" for i, (name, _) in enumerate(layers)}
    lines = ["graph HAM {", "    rankdir=LR;"]
    lines += [f'    {ids[name]} [shape=circle, label="{_quoted(name)}\\n{_quoted(text)}"];' for name, text in layers]
    for i, (label, kind, members) in enumerate(connections):
        lines.append(f'    synapse{i} [shape=box, label="{_quoted(label)}\\n{_quoted(kind)}"];')
        lines += [f"    {ids[name]} -- synapse{i};" for name in members]
    return "\n".join([*lines, "}"]) + "\n"


def _html(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
