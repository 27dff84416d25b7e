"""ACDC: cardiac MRI slices with three structures. ``python -m data_scripts.acdc --archive FILE``.

Bernard et al., IEEE Transactions on Medical Imaging 37(11), 2018. The challenge hands out NIfTI
volumes to registered users; the literature on few labels works with HDF5 slices made from them
(``patientNNN_frameFF_slice_k.h5``, 1902 files), and these are what this project reads.
"""

from data_scripts._cli import main
from data_scripts._sets import Count, DataSet

ACDC = DataSet(
    name="acdc",
    title="ACDC as HDF5 slices (right ventricle, myocardium, left ventricle in MRI)",
    licence="research use under the ACDC terms, cite the paper",
    homepage="https://www.creatis.insa-lyon.fr/Challenge/acdc/",
    unpacked=1_500_000_000,
    counts=(Count("slices", "*patient*_slice_*.h5", 1902, exact=False),),
    layout="acdc",
    how_to_get="register at https://www.creatis.insa-lyon.fr/Challenge/acdc/ and prepare HDF5 "
    "slices as the SSL4MIS and WSL4MIS repositories do",
)

if __name__ == "__main__":
    raise SystemExit(main([ACDC]))
