"""What training and inference share on a CT: resampling, the lungs, crops, and the steps that prepare a scan.

Must not know files, networks or torch.
"""
