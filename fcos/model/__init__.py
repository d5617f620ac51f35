"""The network: ResNet, feature pyramid, two heads; its locations; its files."""
