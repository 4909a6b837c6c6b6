"""Every network: backbones, aggregators, heads, and the localiser made of them."""
