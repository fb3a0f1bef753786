#!/usr/bin/env node
// Compares ledger and kernel, and restores what somebody took away.
//
//   checkfw
import { runWord } from './lib/word.ts'

void runWord(
  'checkfw',
  `Usage: checkfw

Compares the ledger with the kernel and restores what somebody took away, saying
so. Fails with 75 if the ledger itself was lost and this owner has not sent its
leases again.`,
)
