"""Say by the exit code whether the service in this container is ready. Docker asks every few seconds.

So nothing is imported that takes time: to read all settings as the service does would cost half a second of CPU.
"""

import http.client
import os
import sys

# The service's port, unless Kubernetes has put the address of a Service there. The service ignores that too.
port = os.environ["IMAGECLASS_PORT"]
port = port if port.isdigit() else "8000"
# Not urllib.request: that one would ask a proxy for 127.0.0.1 if the container has one set.
connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=2)
connection.request("GET", "/health")
sys.exit(connection.getresponse().status != 200)
