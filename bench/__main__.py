"""`python -m bench`: the speed of one row against bare handlers; arguments go to that check."""

from bench.campaign import speed

if __name__ == "__main__":
    speed.main()
