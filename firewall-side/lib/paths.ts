const INSTALLED = '/usr/local/lib/fail2ban-perimeter/'

/** Where the firewall side keeps its things; below DIR if it was installed with `--prefix DIR`. */
export interface Paths {
  config: string
  keys: string
  state: string
  ledger: string
  run: string
}

/** @param program path of the running program; its place tells the prefix */
export function pathsOf(program: string): Paths {
  const at = program.indexOf(INSTALLED)
  const root = at < 0 ? '' : program.slice(0, at)
  return {
    config: `${root}/etc/fail2ban-perimeter/firewall.yaml`,
    keys: `${root}/etc/fail2ban-perimeter/ssh/.ssh/authorized_keys`,
    state: `${root}/var/lib/fail2ban-perimeter`,
    ledger: `${root}/var/lib/fail2ban-perimeter/firewall.leases`,
    run: `${root}/run/fail2ban-perimeter`,
  }
}
