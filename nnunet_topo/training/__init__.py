"""What runs inside nnU-Net's training: the trainers and the parts that their hooks call."""
