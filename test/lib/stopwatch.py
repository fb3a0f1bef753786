"""Runs commands in turn on a machine and prints the median time of each in milliseconds, so that
reaching the machine is not part of what is measured. Arguments: rounds, then the commands as JSON
lists; {round} in an argument becomes the number of the round."""
import json
import statistics
import subprocess
import sys
import time

rounds, commands = int(sys.argv[1]), [json.loads(text) for text in sys.argv[2:]]
times = [[] for _ in commands]
for number in range(1, rounds + 1):
    for spent, command in zip(times, commands):
        words = [word.replace("{round}", str(number)) for word in command]
        began = time.perf_counter()
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
        spent.append(time.perf_counter() - began)
print(json.dumps([1000 * statistics.median(spent) for spent in times]))
