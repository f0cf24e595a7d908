"""The cluster that KUBECONFIG names, as `coracle server` writes it: with certificate and key of its user inside."""
import base64, http.client, os, ssl, tempfile, urllib.parse, yaml

_config = yaml.safe_load(open(os.environ["KUBECONFIG"]))
_cluster, _user = _config["clusters"][0]["cluster"], _config["users"][0]["user"]


def _file(data):
    kept = tempfile.NamedTemporaryFile(delete=False)
    kept.write(base64.b64decode(data))
    kept.close()
    return kept.name


_url = urllib.parse.urlparse(_cluster["server"])
_tls = ssl.create_default_context(cafile=_file(_cluster["certificate-authority-data"]))
_tls.load_cert_chain(_file(_user["client-certificate-data"]), _file(_user["client-key-data"]))


def connect():
    return http.client.HTTPSConnection(_url.hostname, _url.port, context=_tls)
