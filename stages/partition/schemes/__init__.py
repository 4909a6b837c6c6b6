"""Ways to cut a city: grid, quadtree, hierarchy, combinatorial, heading."""
