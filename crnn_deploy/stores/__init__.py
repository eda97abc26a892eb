"""Where files lie: folders of this machine and object stores, behind one class."""
