"What a step of fastloop costs, beside the same loop written by hand; see README.md."
