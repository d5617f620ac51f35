"""The network (ResNet, feature pyramid and heads), its locations and its files."""
