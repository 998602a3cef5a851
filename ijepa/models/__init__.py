"""The networks: plain nn.Modules that know neither Lightning nor Hydra nor torch.distributed."""
