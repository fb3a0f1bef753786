# What the FortiGate document sets up, for comparison: the same routes, written by us.
#   web_app.py FOLDER PORT debug|plain
import sys

from flask import Flask, jsonify, request, send_from_directory

folder, port, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
app = Flask(__name__)


@app.route("/receive-logs", methods=["POST"])
def receive_logs():
    with open(f"{folder}/failed_logins.log", "a") as log:
        log.write(str(dict(request.form)) + "\n")
    return jsonify({"status": "success"}), 200


@app.route("/blocked-ips", methods=["GET"])
def send_blocked_ips():
    return send_from_directory(folder, "blocked_ips_list.txt")


# The document has debug=True and every address. The reloader is a second process that serves nothing.
app.run(host="127.0.0.1", port=port, debug=mode == "debug", use_reloader=False)
