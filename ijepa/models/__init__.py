"""The networks: plain nn.Modules, independent of Lightning, Hydra and torch.distributed."""
